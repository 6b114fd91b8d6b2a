"""Plans: what would be done to a host, in which stages, as text and as the script that does it. Pure."""
