"""The fault injector: breaks the parts of a running stack while a checker watches its promises."""
