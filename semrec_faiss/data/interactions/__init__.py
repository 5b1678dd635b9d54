"""What people did, made into vectors: titles liked by the same people, and with like texts, come to lie together.

`hybrid` is the mathematics, `transformation_file` what is kept of it so that new titles and new users get vectors
without learning again, `folder` makes one data folder of another.
"""
