"""The picture of `semrec bench gpu`: times by batch size beside the hardware's limit."""
