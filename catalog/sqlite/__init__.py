"""The catalog's store on SQLite: schema, transactions, files."""
