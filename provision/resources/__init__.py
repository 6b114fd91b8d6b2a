"""One file for each kind of resource; ``provision.resource`` says what a resource is."""
