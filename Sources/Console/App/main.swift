print("quarterdeck")
