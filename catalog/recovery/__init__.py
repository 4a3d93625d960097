"""Commands for after a loss, or against one. The doors are `backup.run` and `restore.run`."""
