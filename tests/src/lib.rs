//! Hosts and measurements shared by the tests and the demo.
