"""`rvlib report FOLDER`"""
import json
def write(run):
    print("no report yet")
