"""What is known of NVIDIA's GPUs, drivers and images. Pure."""
