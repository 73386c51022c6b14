"""The container: nodes, and how they are written to and read from HDF5. Only this package uses h5py.

- ``nodes``: arrays, groups and links as kinds see them, in memory or in a file, and names of links.
- ``layout``, ``digests``: where things are in a file of this format, what is content, and its digest.
- ``recipes``, ``quantized``, ``chunks``, ``threads``: how arrays are stored, rounded and compressed.
- ``writer``, ``publish``: a tree of nodes becomes the bytes of a file, and the file gets its name.
- ``reader``, ``arrays``, ``h5types``, ``limits``: a file that may be hostile becomes nodes.
- ``source``, ``remote``, ``locations``: where the bytes of a file come from: a disk, a URL, a zip file.
"""
