import Foundation

setvbuf(stdout, nil, _IOLBF, 0)
Quarterdeck.start()
