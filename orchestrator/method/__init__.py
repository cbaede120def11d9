"""The paper: schedule, removal, training, evaluation. torch and transformers, and nothing of Ray or MLflow."""
