"""The ledger of payments, and the hourly pay."""
