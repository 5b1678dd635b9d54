"""What goes over the wire: requests and replies, questions and problems as types, vectors and answers as Arrow."""
