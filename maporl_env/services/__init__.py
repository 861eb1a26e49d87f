"""Services asked over HTTP: requests and answers in JSON, and the API keys that they take."""
