"""The HTTP side: gunicorn, the Flask application, what is asked and how it is answered."""
