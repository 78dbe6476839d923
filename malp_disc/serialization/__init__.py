"""Reading and writing files.

    files           atomic writes, hashes
    file_kinds      what kind of file it is, from its content
    pickles         torch files as plain tensors, without unpickling other objects
    reading         any file of weights, arrays or JSON, with an error that says what the file is instead
    nesting         finding a network's state dict in what a file holds
    state_dicts     state dicts of networks: load, save, compare, fingerprint
    key             the template set of a MaLP
"""
