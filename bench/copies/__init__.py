"""What is measured: copies of the service in containers, filled with data, beside their floors."""
