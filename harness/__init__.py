"""Plans, runs and stores trials. May import `methods`, never `analysis`."""
