"""movielens"""
