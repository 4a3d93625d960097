"""The catalog's data in SQLite. The door is `store.SqliteStore` on an open `database.Database`."""
