"""generations"""
