"""Our models in other libraries' hands, and other people's environments in ours."""
