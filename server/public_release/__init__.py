"""The public release of a study: a folder that can be published, without anything that identifies a listener."""
