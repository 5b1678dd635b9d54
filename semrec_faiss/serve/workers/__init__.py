"""Several processes at one address: workers that answer, and on a GPU one owner of the device, which searches."""
