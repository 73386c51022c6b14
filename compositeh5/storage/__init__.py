"""The container: nodes, and how they are written to and read from HDF5. Only this package uses h5py."""
