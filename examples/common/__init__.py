"""What the examples share: the four methods, the command line, the detection report."""

# First, so that nothing else imports Keras before its start-up lines are held back.
from keras_ktan_tasks import startup as startup
