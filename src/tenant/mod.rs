//! Who may call: gateway keys.
