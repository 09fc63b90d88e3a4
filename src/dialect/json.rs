//! JSON as the mirrored servers read and write it.
