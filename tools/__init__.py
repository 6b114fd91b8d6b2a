"""Programs for developers that renew the product's data."""
