//! The way of one request: authenticate, admit, choose, call, translate, settle.
