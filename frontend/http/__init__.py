"""The HTTP side: gunicorn, the Flask application, requests and answers."""
