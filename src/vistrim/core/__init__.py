"""Pure tensor and number functions. Imports torch only and knows no model."""
