//! Empty on purpose: the manifest names the crates whose source code is the training text, and nothing here is built.
