"""The platform's servers, each behind one package."""
