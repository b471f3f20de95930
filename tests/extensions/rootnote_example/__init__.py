"""An extension of Rootnote by another package; its dist-info folder has the entry points."""
