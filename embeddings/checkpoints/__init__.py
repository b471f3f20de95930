"""Published weights: the catalogue, the download and the loading."""
