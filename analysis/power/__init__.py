"""Power of a study design: simulation, designs of equal cost, the command."""
