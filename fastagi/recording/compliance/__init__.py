"""Was everything recorded that should be, and is a finished file still what was recorded?"""
