"""One file for each kind of resource; ``base`` says what a resource is."""
