"""The catalog's data in SQLite. The door is `store.CatalogStore` on an open `database.Database`."""
