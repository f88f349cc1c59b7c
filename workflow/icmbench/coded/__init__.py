"""What coding leaves and later jobs read: archives, rows, stamps, inputs of tasks."""
