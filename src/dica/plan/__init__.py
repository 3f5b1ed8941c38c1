"""What is to be run and shown: parameters, artefacts, published numbers, plan, status. Never imports torch."""
