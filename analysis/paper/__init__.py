"""The paper's published results, next to yours."""
