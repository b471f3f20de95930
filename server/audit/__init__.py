"""The tamper-evident log of what researchers did."""
