Quarterdeck.start()
