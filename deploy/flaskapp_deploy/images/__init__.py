"""A directory with an application becomes an OCI image."""
