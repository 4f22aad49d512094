"""The guest's root file system."""
