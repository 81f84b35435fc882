"""Security audit: attacks on the models and images that the cloud receives, and reports of their success."""
