"""The sections of the report: what each computes, and how it is shown and saved."""
