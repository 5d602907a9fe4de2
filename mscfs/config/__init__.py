"""The shared configuration format: finding, reading and checking it."""
