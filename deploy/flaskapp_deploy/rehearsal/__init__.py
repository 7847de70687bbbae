"""buildspec.yml run on this machine, with stand-ins for CodeBuild, ECR and EKS."""
