"""What the documentation site is built with: links, navigation, and pages made from the code."""
